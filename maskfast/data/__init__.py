"""Floor 1: from folders, tables and archives to the items table, audited and split."""
