"""All that makes images: plan, ledger, pipeline, writer, gallery."""
