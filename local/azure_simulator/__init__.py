"""A simulator of Azure Resource Manager for patching virtual machines, over real HTTPS.

It is an independent implementation of Azure's behaviour: nothing here imports the product, so that tests can detect
differences.
"""
