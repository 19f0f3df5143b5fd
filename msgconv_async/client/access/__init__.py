"""Access: accounts and their credentials, logins, and the hosts that serve an account."""
