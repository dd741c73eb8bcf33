"""One document of a session, and the forms it is shown in."""
