"""What `doctor` looks at: this machine, the installed versions, the weights, and an answer that is known."""
