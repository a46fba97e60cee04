"""How near generated galaxies are to real ones, a module a question."""
