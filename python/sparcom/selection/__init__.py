"""From counts to sets: rules and packed bits."""
