"""What a program is: its types, expressions, statements, text form and meaning."""
