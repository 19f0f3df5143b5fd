"""The live page: what accounts resolved in each five minutes, and their pace, in a browser.

`history` remembers, `live` follows and tells viewers, `logins` lets in, and `routes` is the HTTP of
it. The browser's side is in the folder ``static``; code of others, unchanged, in ``vendor``.
"""
