"""The code that commands share. A command imports from here and from the library, never from another command."""
