//! A credential on its way from the operator's signed call into its file: opened here and nowhere else.

use moorage_wire::{
    CredentialName, CredentialType, bootstrap::Operator, credential::SealedCredential, path,
};

use super::{
    WorkError, Worker,
    protocol::{Answer, Refusal},
};
use crate::{secret_text::SecretText, signed::SignedCall};

impl Worker {
    pub(super) fn store_credential(
        &self,
        name: &CredentialName,
        call: &SignedCall,
    ) -> Result<Answer, WorkError> {
        let operator = self.operator()?;
        let path = format!("{}/{name}", path::CREDENTIALS);
        let open = |body: &[u8]| self.open(&operator, name, body);
        let store = |(kind, value)| match kind {
            CredentialType::GoogleOAuthClient => self.secrets.set_google_client(&value),
            _ => self.secrets.set(name, value),
        };
        self.orders.put_credential(&operator, &path, call, open, store).map(Answer::Secrets)
    }

    fn open(
        &self,
        operator: &Operator,
        name: &CredentialName,
        body: &[u8],
    ) -> Result<(CredentialType, SecretText), WorkError> {
        let sealed: SealedCredential = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let message = format!("not a sealed credential: see line {line}, column {column}");
            WorkError::refused(Refusal::Invalid, message)
        })?;
        let kind = sealed.r#type;
        // The tunnel's token is nothing for the user that OpenClaw runs as.
        if kind == CredentialType::TunnelToken || !kind.fits(name) {
            let message = format!("{name} is no {kind}, or is not for OpenClaw");
            return Err(WorkError::refused(Refusal::Invalid, message));
        }
        let label = sealed.label(operator.instance_id, operator.epoch, name);
        let value = self.key.unseal(&sealed.envelope, &label)?;
        // As the operator does with what it opens; of what is sealed to the server it saw nothing.
        let value = kind.trimmed(&value).unwrap_or(value);
        kind.check(value.expose())
            .map_err(|error| WorkError::refused(Refusal::InvalidFormat, error.to_string()))?;
        // Every type was checked to be text.
        Ok((kind, SecretText::new(value.expose_str().unwrap_or_default())))
    }
}
