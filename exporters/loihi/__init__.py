"""Export toward Loihi: what a person with access to the hardware needs."""
