"""Instructions: their schema, the bundled HexaInst set, and their prompts."""
