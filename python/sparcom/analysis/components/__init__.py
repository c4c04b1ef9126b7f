"""Single components: general, unique, specific."""
