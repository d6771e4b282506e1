"""The same effort for the recipe of every strategy: trials before the table's trainings, and the choice among them."""
