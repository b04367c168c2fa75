// Memory and time models.
