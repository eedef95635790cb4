"""What to crawl and how: the job that travels to every worker, its checks, and job files."""
