"""Man pages and completion out of the tables; imported by nobody."""
