"""`sambaflow.online_inference_service`: requests from a queue, which there is none of here."""
