//! Objects of S3, Google Cloud Storage and Azure Blob Storage. Settings and credentials come from the environment, as the
//! builders of `object_store` read them.

use crate::{Scheme, StoreError};
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::buffered::BufWriter;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, RetryConfig};
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::runtime::{Builder, Runtime};

/// Tries of a request, after the first.
const RETRIES_MAX: usize = 5;

/// No further try of a request begins later than this.
const RETRY_TIME: Duration = Duration::from_secs(60);

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// A request takes no longer than this, unless the environment says so: a part on a slow line takes its time.
const REQUEST_TIME: &str = "120s";

/// What is larger goes in parts of this many bytes, of which some are on their way at once.
const PART_BYTES: u64 = 8 << 20;
const PARTS_AT_ONCE: usize = 4;

/// The most parts that the stores take.
const PARTS_MAX: u64 = 10_000;

/// A small object is written, read or deleted within this time, all tries together.
const SMALL_TIME: Duration = Duration::from_secs(75);

#[derive(Debug)]
pub(crate) struct Cloud {
    url: String,
    remedy: &'static str,
    prefix: String,
    objects: Arc<dyn ObjectStore>,
    runtime: Runtime,
}

impl Cloud {
    pub(crate) fn open(url: &str, scheme: Scheme, bucket: &str, prefix: String) -> Result<Self, StoreError> {
        // Whoever was first has chosen one already, and any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let remedy = match scheme {
            Scheme::S3 => {
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION (and AWS_ENDPOINT, AWS_ALLOW_HTTP=true for another server)"
            }
            Scheme::Gs => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
            Scheme::Az => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        };
        let failed = |what: &str, why: String| StoreError::Cloud {
            url: url.to_owned(),
            what: what.to_owned(),
            why,
            remedy,
        };
        let objects = builder(scheme, bucket).map_err(|why| failed("reading its settings", told(&why)))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|why| failed("starting", why.to_string()))?;
        Ok(Self { url: url.to_owned(), remedy, prefix, objects, runtime })
    }

    fn path(&self, name: &str) -> Path {
        if self.prefix.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.prefix)) }
    }

    fn failed(&self, what: String, why: &(dyn std::error::Error + 'static)) -> StoreError {
        StoreError::Cloud { url: self.url.clone(), what, why: told(why), remedy: self.remedy }
    }

    fn late(&self, what: String) -> StoreError {
        let why = format!("it did not answer within {} s", SMALL_TIME.as_secs());
        StoreError::Cloud { url: self.url.clone(), what, why, remedy: self.remedy }
    }

    /// Waits for something small.
    fn wait<T>(
        &self,
        what: impl Fn() -> String,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        match self.runtime.block_on(async { tokio::time::timeout(SMALL_TIME, work).await }) {
            Ok(done) => done.map_err(|why| self.failed(what(), &why)),
            Err(_) => Err(self.late(what())),
        }
    }

    pub(crate) fn put_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name);
        let put = self.objects.put(&path, bytes.to_vec().into());
        self.wait(|| format!("writing {name}"), put).map(drop)
    }

    pub(crate) fn put(&self, name: &str, from: &mut File, length: u64) -> Result<(), StoreError> {
        let what = || format!("writing {name}");
        let unreadable = |source| StoreError::File { path: name.into(), source };
        let part = PART_BYTES.max(length.div_ceil(PARTS_MAX - 1)) as usize;
        let mut writer = BufWriter::with_capacity(self.objects.clone(), self.path(name), part)
            .with_max_concurrency(PARTS_AT_ONCE);
        let (mut left, mut piece) = (length, vec![0; (1 << 20).min(part)]);
        self.runtime.block_on(async {
            let written = loop {
                if left == 0 {
                    break writer.shutdown().await.map_err(|why| self.failed(what(), &why));
                }
                let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                match from.read(&mut piece[..wanted]) {
                    Ok(0) => break Err(unreadable(std::io::ErrorKind::UnexpectedEof.into())),
                    Err(why) => break Err(unreadable(why)),
                    Ok(length) => {
                        left -= length as u64;
                        if let Err(why) = writer.write_all(&piece[..length]).await {
                            break Err(self.failed(what(), &why));
                        }
                    }
                }
            };
            if written.is_err() {
                // Parts without a whole cost money; if this fails too, the store's own rules clear them up.
                let _ = writer.abort().await;
            }
            written
        })
    }

    pub(crate) fn get(
        &self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let (path, what) = (self.path(name), || format!("reading {name}"));
        self.runtime.block_on(async {
            let got = match tokio::time::timeout(SMALL_TIME, self.objects.get(&path)).await {
                Err(_) => return Err(self.late(what())),
                Ok(Err(object_store::Error::NotFound { .. })) => return Ok(false),
                Ok(got) => got.map_err(|why| self.failed(what(), &why))?,
            };
            let mut pieces = got.into_stream();
            while let Some(piece) = pieces.try_next().await.map_err(|why| self.failed(what(), &why))? {
                take(&piece)?;
            }
            Ok(true)
        })
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        let delete = async {
            match self.objects.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        };
        self.wait(|| format!("deleting {name}"), delete)
    }

    pub(crate) fn list(&self, under: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path(under);
        let found = self.objects.list(Some(&path)).try_collect::<Vec<_>>();
        let found = self.wait(|| format!("listing {under}"), found)?;
        let names = found.iter().filter_map(|object| object.location.filename());
        Ok(names.map(|name| format!("{under}/{name}")).collect())
    }
}

fn builder(scheme: Scheme, bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    let backoff = BackoffConfig { max_backoff: PAUSE_MAX, ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIME };
    let patient = |variable: &str| std::env::var_os(variable).is_none();
    Ok(match scheme {
        Scheme::S3 => {
            let mut builder = AmazonS3Builder::from_env();
            if patient("AWS_TIMEOUT") {
                builder =
                    builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIME);
            }
            Arc::new(builder.with_bucket_name(bucket).with_retry(retry).build()?)
        }
        Scheme::Gs => {
            let mut builder = GoogleCloudStorageBuilder::from_env();
            if patient("GOOGLE_TIMEOUT") {
                builder =
                    builder.with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIME);
            }
            Arc::new(builder.with_bucket_name(bucket).with_retry(retry).build()?)
        }
        Scheme::Az => {
            let mut builder = MicrosoftAzureBuilder::from_env();
            if patient("AZURE_TIMEOUT") {
                builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIME);
            }
            Arc::new(builder.with_container_name(bucket).with_retry(retry).build()?)
        }
    })
}

/// An error with its causes, each once, on one line.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
