"""How a network is computed: the levels, and what each of them does."""
