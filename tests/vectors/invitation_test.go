package vectors

import (
	"crypto/sha256"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
)

func tokenOperation(v *values) (outputs, error) {
	reader, reference := v.id("reader"), v.str("reference")
	if err := links.CheckReference(reference); err != nil {
		return nil, err
	}
	root := v.root("root")
	token := root.Invitation(policies.ReaderID(reader), reference, v.num("expires"))
	return outputs{"token": token, "link": links.Invite{Reader: policies.IdentityID(reader), Token: token}.String()}, nil
}

func openInvitationOperation(v *values) (outputs, error) {
	reference, expires, err := v.root("root").OpenInvitation(policies.ReaderID(v.id("reader")), v.bytes("token"))
	return outputs{"reference": reference, "expires": expires}, err
}

func linkOperation(v *values) (outputs, error) {
	l, err := links.ParseInvite(v.str("link"))
	hash := sha256.Sum256(l.Token)
	return outputs{"reader": l.Reader[:], "token": l.Token, "invitation": hash[:]}, err
}
