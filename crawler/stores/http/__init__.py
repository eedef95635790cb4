"""Web servers: ranges of files, and folders by their HTML index pages."""
