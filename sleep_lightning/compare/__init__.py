"""Several configurations, several seeds, one table: is it sleep that helps, or what it could be confused with?"""
