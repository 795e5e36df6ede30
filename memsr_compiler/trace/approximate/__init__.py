"""Teachers that no plain network can express, read with what is beyond it frozen or straightened."""
