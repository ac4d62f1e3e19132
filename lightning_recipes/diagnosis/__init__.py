"""Diagnosis: stages that gather evidence, hand it to the checks, and weigh what they found."""
