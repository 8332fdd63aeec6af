"""The tests of Einloom, one folder a floor."""
