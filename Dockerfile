# The operator's image: one static binary, the certificate roots, an account without rights, and the list
# of what the binary is made from. Nothing is compiled or downloaded here: hack/image.sh makes the folder of
# each architecture that is copied, and builds the image from it.
FROM scratch
ARG TARGETARCH
COPY --chown=0:0 ${TARGETARCH}/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/moorage"]
CMD ["run"]
