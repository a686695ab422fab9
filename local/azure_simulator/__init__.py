"""A simulator of Azure Resource Manager for patching virtual machines, over real HTTPS.

It is a second, independent reading of Azure's behaviour: nothing here imports the product, so that the two can
disagree and a test can notice.
"""
