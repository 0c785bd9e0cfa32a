//! Content-addressed blobs: ingest, verification, references, collection.
