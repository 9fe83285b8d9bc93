"""What a fault kind promises, how kinds are found, and the laws they are held to."""
