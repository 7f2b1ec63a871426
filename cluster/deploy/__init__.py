"""Driving cdktf and Terraform from the operator's machine: prerequisites, deploy, destroy, state, outputs."""
