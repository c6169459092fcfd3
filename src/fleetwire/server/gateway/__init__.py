"""The gateway: where agents dial in. It frames and unframes, and holds no key that signs."""
