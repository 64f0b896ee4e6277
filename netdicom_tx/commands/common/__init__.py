"""What the commands share; a command imports from here and from the library, never from another command."""
