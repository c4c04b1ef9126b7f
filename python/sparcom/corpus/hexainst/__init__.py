"""HexaInst: the bundled half, and the recipe that builds the other."""
