"""Statistics of labels: how far two labellings agree, and which items are doubtful."""
