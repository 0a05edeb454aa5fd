"""One module per host contract, the same two verbs in each.

`wrap` takes datasets and appends pseudo videos; `attach` takes loaders and replaces
videos in their batches.
"""
