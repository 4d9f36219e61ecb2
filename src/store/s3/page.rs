//! One page of a server's listing: whether it can be believed, and what of it is ours. `S3::list` asks for pages and reads them here.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;

use crate::id::ObjectKey;
use crate::store::{Error, Kind, names};

/// What a page says.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Page {
    /// Our objects with their lengths in bytes, in byte order of their keys. What others keep there, such as the empty objects that
    /// stand for folders, is none of ours.
    pub(super) objects: Vec<(ObjectKey, u64)>,
    /// The page's last name, whoever's it is, if others follow it: the next page begins behind it.
    pub(super) next: Option<String>,
}

impl Page {
    /// Reads an answer to the question for what follows `after`; what is ours begins with `prefix`.
    ///
    /// [`Kind::Invalid`] if names do not come in byte order behind `after`, as S3's documentation of ListObjectsV2 promises: we go on
    /// from the last name of a page, and what such a server lists out of its place would be missed, or asked for without end.
    pub(super) fn read(
        answer: ListObjectsV2Output,
        prefix: &str,
        after: Option<&str>,
        doing: &str,
    ) -> Result<Self, Error> {
        let more = answer.is_truncated().unwrap_or(false);
        let mut page = Self::default();
        let mut last: Option<String> = None;
        for object in answer.contents.unwrap_or_default() {
            let Some(key) = object.key else {
                continue;
            };
            if last.as_deref().or(after).is_some_and(|last| *key <= *last) {
                return Err(Error::new(
                    Kind::Invalid,
                    doing,
                    format!(
                        "the server does not list names in byte order ({key:?} came too late), so some could be missed; \
                         keep the repository on another server"
                    ),
                ));
            }
            let name = key.strip_prefix(prefix).filter(|name| names::is_key(name));
            let len = object.size.and_then(|size| u64::try_from(size).ok());
            if let (Some(name), Some(len)) = (name, len) {
                page.objects.push((ObjectKey::new(name), len));
            }
            last = Some(key);
        }
        if more && last.is_none() {
            let message = "the server says that more names follow, and gives none";
            return Err(Error::new(Kind::Invalid, doing, message));
        }
        page.next = last.filter(|_| more);
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::Object;

    use super::*;

    fn answer(names: &[&str], more: bool) -> ListObjectsV2Output {
        let object = |name: &&str| Object::builder().key(*name).size(1).build();
        ListObjectsV2Output::builder()
            .set_contents(Some(names.iter().map(object).collect()))
            .is_truncated(more)
            .build()
    }

    #[test]
    fn a_page_gives_our_names_and_where_the_next_begins() {
        let read = |names, more| Page::read(answer(names, more), "p/", Some("p/a"), "list");
        let page = read(&["p/b", "p/c!"], true).unwrap();
        assert_eq!(page.objects, [(ObjectKey::new("b"), 1)]);
        assert_eq!(page.next.as_deref(), Some("p/c!"));
        let page = read(&["p/c!", "p/c!!"], true).unwrap();
        assert!(page.objects.is_empty());
        assert_eq!(page.next.as_deref(), Some("p/c!!"));
        assert_eq!(read(&["p/b"], false).unwrap().next, None);
        assert_eq!(read(&[], false).unwrap(), Page::default());
    }

    #[test]
    fn names_out_of_order_and_pages_without_end_are_refused() {
        // As a server would that walks folders, and one that knows no start-after.
        for names in [
            &["p/c/1", "p/c-claims/1"][..],
            &["p/b", "p/b"],
            &["p/a", "p/b"],
            &["p/Z"],
        ] {
            let read = Page::read(answer(names, false), "p/", Some("p/a"), "list");
            assert_eq!(read.unwrap_err().kind, Kind::Invalid, "{names:?}");
        }
        let read = Page::read(answer(&[], true), "p/", None, "list");
        assert_eq!(read.unwrap_err().kind, Kind::Invalid);
    }
}
