"""The proof that nothing accepted is lost: real processes under load, killed at random, and the books afterwards."""
