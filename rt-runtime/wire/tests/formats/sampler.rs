//! Values of a type that serde can read, made of nothing but what the type says of itself: each
//! variant once, and no field left out. A variant or field that is added is in there without
//! anybody adding it to a list.

use serde::de::value::Error;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::collections::BTreeMap;

/// Every variant of `T` (of a struct: the struct), with every variant of the enums inside it;
/// every option is there, every list and map has one entry, and numbers differ.
///
/// # Panics
/// Where an enum inside has a variant that is in no sample: one that is in another than the last
/// variant of an enum.
pub fn samples<T: DeserializeOwned + PartialEq>() -> Vec<T> {
    let (mut samples, mut enums) = (Vec::new(), Enums::new());
    for outer in 0.. {
        let mut inner = 0;
        loop {
            let mut sampler = Sampler {
                numbers: 0,
                outer: Some(outer),
                inner,
                left: inner,
                variants: 1,
                widest: 1,
                enums: std::mem::take(&mut enums),
            };
            let sample = T::deserialize(&mut sampler).expect("the sampler gives what the type asks for");
            enums = sampler.enums;
            if outer >= sampler.variants {
                let missing = enums.iter().find(|(_, has_sample)| !**has_sample);
                assert_eq!(missing, None, "no sample of that enum and variant");
                return samples;
            }
            if !samples.contains(&sample) {
                samples.push(sample);
            }
            inner += 1;
            if inner >= sampler.widest {
                break;
            }
        }
    }
    samples
}

/// The variants of the enums that were met, and whether there is a sample of each.
type Enums = BTreeMap<(&'static str, &'static str), bool>;

struct Sampler {
    numbers: u8,
    /// The variant of the outermost enum, until that was met.
    outer: Option<usize>,
    /// The variant of all other enums, or their last; of what is inside that variant, so much
    /// less.
    inner: usize,
    /// What is left of it here.
    left: usize,
    /// How many the outermost enum has.
    variants: usize,
    /// From which `inner` on nothing is new.
    widest: usize,
    enums: Enums,
}

impl Sampler {
    /// Another one each time, and fit for all that is checked when it is read.
    fn number(&mut self) -> u8 {
        self.numbers = self.numbers % 7 + 1;
        self.numbers
    }

    fn variant(&mut self, variants: usize) -> usize {
        if let Some(outer) = self.outer.take() {
            self.variants = variants;
            return outer.min(variants - 1);
        }
        self.widest = self.widest.max(self.inner - self.left + variants);
        self.left.min(variants - 1)
    }
}

macro_rules! numbers {
    ($($read:ident $visit:ident $type:ty),*) => { $(
        fn $read<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(<$type>::from(self.number()))
        }
    )* };
}

impl<'de> Deserializer<'de> for &mut Sampler {
    type Error = Error;

    numbers!(
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64
    );

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(true)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(format!("text {}", self.number()))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Entries { sampler: self, left: 1 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Entries { sampler: self, left: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { sampler: self, left: 1 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (is_outer, left) = (self.outer.is_some(), self.left);
        let variant = self.variant(variants.len());
        for (at, of) in variants.iter().enumerate() {
            *self.enums.entry((name, of)).or_default() |= at == variant;
        }
        if !is_outer {
            self.left -= variant;
        }
        let value = visitor.visit_enum(Chosen { sampler: self, variant });
        self.left = left;
        value
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("a type that says what it is"))
    }

    serde::forward_to_deserialize_any! { i8 i128 u128 char bytes byte_buf unit_struct identifier ignored_any }
}

struct Entries<'s> {
    sampler: &'s mut Sampler,
    left: usize,
}

impl<'de> SeqAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.sampler).map(Some)
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.sampler)
    }
}

struct Chosen<'s> {
    sampler: &'s mut Sampler,
    variant: usize,
}

impl<'de> EnumAccess<'de> for Chosen<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let number: de::value::U32Deserializer<Error> = (self.variant as u32).into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.sampler)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.sampler.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.sampler.deserialize_tuple(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::samples;
    use serde::Deserialize;

    #[derive(Deserialize, PartialEq, Debug, Clone, Copy)]
    enum Inner {
        X,
        Y,
        Z,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    enum InLast {
        A,
        B { inner: Inner, number: u8 },
    }

    #[derive(Deserialize, PartialEq, Debug)]
    enum InFirst {
        A { inner: Inner },
        B,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    enum Message {
        Other(bool),
        With { first: InFirst },
    }

    #[test]
    fn samples_have_every_variant_of_every_enum() {
        let all = [Inner::X, Inner::Y, Inner::Z];
        let inner = all.map(|inner| InLast::B { inner, number: 1 });
        assert_eq!(samples::<InLast>(), [InLast::A].into_iter().chain(inner).collect::<Vec<_>>());
        let inner = all.map(|inner| InFirst::A { inner });
        assert_eq!(samples::<InFirst>(), inner.into_iter().chain([InFirst::B]).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic = "no sample of that enum and variant"]
    fn a_variant_without_a_sample_is_told() {
        samples::<Message>();
    }
}
