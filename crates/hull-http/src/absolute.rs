//! Plain requests to a proxy carry the whole address (RFC 9112 section 3.2.2), which `ureq` does not write.

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

const METHODS: [&[u8]; 6] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE "];

/// Puts scheme and host before the path of each request.
#[derive(Debug)]
pub(crate) struct AbsoluteForm;

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = Absolute<In>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let prefix = format!("http://{}", details.uri.authority().map_or("", |authority| authority.as_str()));
        Ok(chained.map(|inner| Absolute { inner, prefix, in_body: false }))
    }
}

#[derive(Debug)]
pub(crate) struct Absolute<T> {
    inner: T,
    prefix: String,
    /// Output since the last answer belongs to a body, which may look like a request.
    in_body: bool,
}

impl<T: Transport> Transport for Absolute<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let added = self.prefix.len();
        let output = self.inner.buffers().output();
        let method = METHODS.iter().find(|method| output.starts_with(method)).filter(|_| !self.in_body);
        self.in_body = true;
        let Some(at) = method.map(|method| method.len()).filter(|_| amount + added <= output.len()) else {
            return self.inner.transmit_output(amount, timeout);
        };
        output.copy_within(at..amount, at + added);
        output[at..at + added].copy_from_slice(self.prefix.as_bytes());
        self.inner.transmit_output(amount + added, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.in_body = false;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}
