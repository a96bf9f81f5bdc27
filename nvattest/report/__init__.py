"""Results for people: an appraisal as text and as a page, and one entry for every code and check."""
