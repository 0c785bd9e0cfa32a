//! The Stream lists: what a List call answers, as a stream of messages, so that no list is too long
//! for one. An item is made when its message is due: for a client that reads slowly there is one
//! message, and of the other items no more than what they are made from.

use std::pin::Pin;
use std::sync::Arc;

use crisp_api::runtime::v1 as cri;
use crisp_node::{ContainerView, PodView};
use futures::stream::Peekable;
use futures::{Stream, StreamExt as _, future, stream};
use prost::Message;
use tonic::Status;

use super::Service;
use crate::from_cri::filter::{ContainerFilter, PodFilter};
use crate::to_cri;

/// Bytes of items in a message, unless one item alone has more. Clients take messages of 4 MiB at
/// least, which is gRPC's own limit.
const MOST: usize = 512 << 10;

/// Items whose figures are read at a time: enough to keep the threads busy that read them.
const AT_ONCE: usize = 8;

/// The messages of one list.
pub(super) type Messages<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// Puts items into messages, as many as fit and one at least. Without items there is no message.
fn messages<I, R>(
    items: impl Stream<Item = I> + Send + 'static,
    message: fn(Vec<I>) -> R,
) -> Messages<R>
where
    I: Message + 'static,
    R: 'static,
{
    let filled = stream::unfold(Box::pin(items.peekable()), fill);
    Box::pin(filled.map(move |some| Ok(message(some))))
}

/// The items of the next message.
async fn fill<I: Message, S: Stream<Item = I>>(
    mut items: Pin<Box<Peekable<S>>>,
) -> Option<(Vec<I>, Pin<Box<Peekable<S>>>)> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    while let Some(item) = items.as_mut().peek().await {
        bytes += encoded(item);
        if bytes > MOST && !some.is_empty() {
            break;
        }
        some.extend(items.next().await);
    }
    (!some.is_empty()).then_some((some, items))
}

/// Bytes of an item in a message: the field's key, its length, the item.
fn encoded(item: &impl Message) -> usize {
    let length = item.encoded_len();
    1 + prost::length_delimiter_len(length) + length
}

impl Service {
    pub(super) fn stream_pods(
        &self,
        request: cri::StreamPodSandboxesRequest,
    ) -> Result<Messages<cri::StreamPodSandboxesResponse>, Status> {
        let views = self.select_pods(&PodFilter::of_list(request.filter)?);
        let items = stream::iter(views).map(|view| to_cri::pod::item(&view));
        Ok(messages(items, |pod_sandboxes| {
            cri::StreamPodSandboxesResponse { pod_sandboxes }
        }))
    }

    pub(super) fn stream_containers(
        &self,
        request: cri::StreamContainersRequest,
    ) -> Result<Messages<cri::StreamContainersResponse>, Status> {
        let views = self.select_containers(&ContainerFilter::of_list(request.filter)?);
        let items = stream::iter(views).map(|view| to_cri::container::item(&view));
        Ok(messages(items, |containers| {
            cri::StreamContainersResponse { containers }
        }))
    }

    /// An image that is removed meanwhile is left out.
    pub(super) fn stream_images(
        &self,
        request: cri::StreamImagesRequest,
    ) -> Messages<cri::StreamImagesResponse> {
        let found = self.select_images(request.filter);
        let ids: Vec<_> = found.into_iter().map(|image| image.id).collect();
        let images = self.engine.images().clone();
        let each = stream::iter(ids).filter_map(move |id| future::ready(images.info(&id)));
        let items = each.map(|info| to_cri::image::image(&info));
        messages(items, |images| cri::StreamImagesResponse { images })
    }

    /// A container that ends meanwhile is left out.
    pub(super) fn stream_container_stats(
        &self,
        request: cri::StreamContainerStatsRequest,
    ) -> Messages<cri::StreamContainerStatsResponse> {
        let service = self.clone();
        let read = move |view: Arc<ContainerView>| {
            let service = service.clone();
            async move { service.stats_of_container(&view).await }
        };
        let each = stream::iter(self.select_running(request.filter)).map(read);
        let items = each.buffered(AT_ONCE).filter_map(future::ready);
        messages(items, |container_stats| cri::StreamContainerStatsResponse {
            container_stats,
        })
    }

    /// A pod that is removed meanwhile is left out.
    pub(super) fn stream_pod_stats(
        &self,
        request: cri::StreamPodSandboxStatsRequest,
    ) -> Messages<cri::StreamPodSandboxStatsResponse> {
        let service = self.clone();
        let views = self.select_pods(&PodFilter::of_stats(request.filter));
        let read = move |view: Arc<PodView>| {
            let service = service.clone();
            async move { service.stats_of_pod(&view).await }
        };
        let each = stream::iter(views).map(read);
        let items = each.buffered(AT_ONCE).filter_map(future::ready);
        messages(items, |pod_sandbox_stats| {
            cri::StreamPodSandboxStatsResponse { pod_sandbox_stats }
        })
    }

    /// A pod that is removed meanwhile is left out.
    pub(super) fn stream_pod_metrics(&self) -> Messages<cri::StreamPodSandboxMetricsResponse> {
        let service = self.clone();
        let read = move |view: Arc<PodView>| {
            let service = service.clone();
            async move { service.metrics_of_pod(&view).await }
        };
        let each = stream::iter(self.select_ready()).map(read);
        let items = each.buffered(AT_ONCE).filter_map(future::ready);
        messages(items, |pod_sandbox_metrics| {
            cri::StreamPodSandboxMetricsResponse {
                pod_sandbox_metrics,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// An item that takes about so many bytes.
    fn item(bytes: usize) -> cri::Container {
        cri::Container {
            id: "x".repeat(bytes),
            ..cri::Container::default()
        }
    }

    fn containers(containers: Vec<cri::Container>) -> cri::StreamContainersResponse {
        cri::StreamContainersResponse { containers }
    }

    async fn sizes(of: Vec<usize>) -> Vec<Vec<usize>> {
        let items = stream::iter(of).map(item);
        let all: Vec<_> = messages(items, containers).collect().await;
        let mut sizes = Vec::new();
        for message in all {
            let message = message.unwrap();
            let is_alone = message.containers.len() == 1;
            assert!(is_alone || message.encoded_len() <= MOST, "too large");
            sizes.push(message.containers.iter().map(|c| c.id.len()).collect());
        }
        sizes
    }

    #[tokio::test]
    async fn messages_are_as_large_as_they_may_be() {
        let huge = MOST + 1;
        // Of keys and lengths there are 8 bytes an item.
        let half = MOST / 2 - 8;
        let cases: [(Vec<usize>, Vec<Vec<usize>>); 8] = [
            (vec![], vec![]),
            (vec![1], vec![vec![1]]),
            (vec![huge], vec![vec![huge]]),
            (vec![half, half, 1], vec![vec![half, half], vec![1]]),
            (vec![half, half + 1, 1], vec![vec![half], vec![half + 1, 1]]),
            (vec![1, huge, 2, 3], vec![vec![1], vec![huge], vec![2, 3]]),
            (vec![huge, huge], vec![vec![huge], vec![huge]]),
            (vec![1; 1000], vec![vec![1; 1000]]),
        ];
        for (given, wanted) in cases {
            assert_eq!(sizes(given.clone()).await, wanted, "{given:?}");
        }
    }

    #[tokio::test]
    async fn no_more_is_made_than_is_asked_for() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let make = |bytes| {
            MADE.fetch_add(1, Ordering::SeqCst);
            item(bytes)
        };
        let items = stream::iter(vec![MOST / 4; 1000]).map(make);
        let mut messages = messages(items, containers);
        assert_eq!(MADE.load(Ordering::SeqCst), 0);
        for number in 1..=3 {
            let message = messages.next().await.unwrap().unwrap();
            assert_eq!(message.containers.len(), 3);
            // The first item of the next message shows that it does not fit.
            assert_eq!(MADE.load(Ordering::SeqCst), 3 * number + 1);
        }
    }
}
