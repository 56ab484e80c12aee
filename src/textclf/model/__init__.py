"""The network: torch begins here."""
