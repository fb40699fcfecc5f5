"""Text of reports: what a vocabulary says about its pieces, which words are hidden, and a network that fills them in."""
