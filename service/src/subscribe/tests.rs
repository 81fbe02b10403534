//! Tests of attachments.
