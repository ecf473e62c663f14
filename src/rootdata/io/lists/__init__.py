"""Lists of files, as people write them and as catalogues publish them."""
