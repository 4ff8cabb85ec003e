//! Bounds on what is read of a server. Whatever is beyond them is passed over and not refused, so that a
//! newer agent that says more is still understood.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

/// The first `MAX` items of a list.
pub(crate) fn list<'de, D, T, const MAX: usize>(reader: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    reader.deserialize_seq(Items::<T, MAX>(PhantomData))
}

struct Items<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX {
            let Some(item) = list.next_element()? else { break };
            items.push(item);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        items.shrink_to_fit();
        Ok(items)
    }
}

/// The first `MAX` bytes of a text whose letters are checked elsewhere, such as a signature.
pub(crate) fn text<'de, D: Deserializer<'de>, const MAX: usize>(
    reader: D,
) -> Result<String, D::Error> {
    let mut text = String::deserialize(reader)?;
    text.truncate(text.floor_char_boundary(MAX));
    text.shrink_to_fit();
    Ok(text)
}
