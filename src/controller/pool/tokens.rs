//! The API tokens of a pool's clouds, out of their Secrets.

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client};

use crate::{
    api::{HostingPoolSpec, conditions::Reason, pool::TokenSecretRef},
    cloud::{ApiToken, Cloud},
    problem::Problem,
};

/// A token as it was read.
pub(super) struct ReadToken {
    pub(super) token: ApiToken,
    /// UID and resource version of its Secret, and the key in it.
    pub(super) version: String,
}

/// Reads the two tokens, from one Secret or from two.
pub(super) async fn read_tokens(
    client: &Client,
    namespace: &str,
    spec: &HostingPoolSpec,
) -> Result<Result<[ReadToken; 2], Problem>, kube::Error> {
    let secrets: Api<KubeSecret> = Api::namespaced(client.clone(), namespace);
    let mut tokens = Vec::new();
    let references = [
        (Cloud::Hetzner, &spec.hetzner.token_secret_ref),
        (Cloud::Cloudflare, &spec.cloudflare.token_secret_ref),
    ];
    for (cloud, reference) in references {
        let secret = secrets.get_opt(&reference.name).await?;
        match parse_token(secret, reference) {
            Ok(token) => tokens.push(token),
            Err(problem) => return Ok(Err(token_missing(cloud, namespace, reference, &problem))),
        }
    }
    let mut tokens = tokens.into_iter();
    let pair = tokens.next().zip(tokens.next()).map(|(first, second)| [first, second]);
    Ok(Ok(pair.expect("one token was pushed for each of the two clouds")))
}

fn parse_token(
    secret: Option<KubeSecret>,
    reference: &TokenSecretRef,
) -> Result<ReadToken, String> {
    let secret = secret.ok_or("there is no such Secret")?;
    let bytes = secret.data.and_then(|mut data| data.remove(reference.key.as_str()));
    let bytes = bytes.ok_or("the Secret has no such key")?;
    let token = ApiToken::parse(bytes.0).map_err(|error| error.to_string())?;
    let part = |text: Option<String>| text.unwrap_or_default();
    let version = format!(
        "{}/{}/{}",
        part(secret.metadata.uid),
        part(secret.metadata.resource_version),
        reference.key
    );
    Ok(ReadToken { token, version })
}

fn token_missing(
    cloud: Cloud,
    namespace: &str,
    reference: &TokenSecretRef,
    problem: &str,
) -> Problem {
    let (name, key) = (&reference.name, &reference.key);
    Problem::whole(
        Reason::TokenSecretMissing,
        format!(
            "The API token of {cloud} should be in Secret {namespace}/{name} under key {key}: {problem}. Put it there."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use rstest::rstest;

    fn reference() -> TokenSecretRef {
        TokenSecretRef { name: "clouds".parse().unwrap(), key: "hetzner".parse().unwrap() }
    }

    fn secret(key: &str, value: &str) -> KubeSecret {
        let data = [(key.to_owned(), ByteString(value.into()))].into();
        KubeSecret { data: Some(data), ..KubeSecret::default() }
    }

    #[rstest]
    #[case(None, "no such Secret")]
    #[case(Some(KubeSecret::default()), "no such key")]
    #[case(Some(secret("token", "abc")), "no such key")]
    #[case(Some(secret("hetzner", " \n")), "empty")]
    #[case(Some(secret("hetzner", "a b")), "visible ASCII")]
    fn a_token_that_is_not_there_is_explained(
        #[case] secret: Option<KubeSecret>,
        #[case] about: &str,
    ) {
        let problem = parse_token(secret, &reference()).err().unwrap();
        assert!(problem.contains(about), "{problem}");
        let problem = token_missing(Cloud::Hetzner, "moorage-system", &reference(), &problem);
        for part in ["moorage-system/clouds", "key hetzner"] {
            assert!(problem.message.contains(part), "{}", problem.message);
        }
    }

    #[test]
    fn a_token_is_read_with_its_version() {
        let mut secret = secret("hetzner", "abc\n");
        secret.metadata.resource_version = Some("12".to_owned());
        let read =
            parse_token(Some(secret), &reference()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.version, "/12/hetzner");
    }
}
