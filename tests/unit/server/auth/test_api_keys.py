"""API keys: who a key belongs to, and what a change of the file changes."""

import hashlib
from pathlib import Path

import pytest

from medmoe.server.auth.api_keys import ApiKeys, WatchedKeys
from medmoe.server.auth.authenticator import Authenticator
from medmoe.server.auth.key_file import KeyEntry, new_key, parse_key_file
from medmoe.server.auth.tenants import Grant
from medmoe.server.errors import RateLimited, Unauthenticated

KEY, LINE = new_key("ward-7")
HASH = LINE.split()[1]
SECOND_KEY, SECOND_LINE = new_key("ward-7")
LAB_KEY, LAB_LINE = new_key("lab")


def entries(*lines: str) -> tuple[KeyEntry, ...]:
    return parse_key_file("\n".join(lines).encode())


def found(keys: ApiKeys, key: str) -> Grant:
    grant = keys.find(key)
    assert grant is not None
    return grant


def test_a_new_key_is_long_and_only_its_hash_is_kept() -> None:
    assert len(KEY) > 40
    assert hashlib.sha256(KEY.encode()).hexdigest() == HASH
    assert KEY not in LINE
    assert SECOND_KEY != KEY


def test_a_key_finds_its_tenant_and_no_other_does(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{LINE}\n{LAB_LINE}\n")
    authenticator = Authenticator(WatchedKeys.read(path, requests_per_minute=None), requests_per_minute=None)
    ward, lab = authenticator.find(KEY).tenant, authenticator.find(LAB_KEY).tenant
    assert ward.log_id != lab.log_id
    assert ward.cache_salt != lab.cache_salt
    assert ward.cache_salt is not None
    assert "ward" not in str(ward.log_id)
    for wrong in (None, "", HASH, KEY[:-1], KEY + "x", KEY.upper(), "\udcff"):
        with pytest.raises(Unauthenticated):
            authenticator.find(wrong)


def test_two_keys_of_one_name_share_its_rate() -> None:
    keys = ApiKeys(entries(LINE, SECOND_LINE), requests_per_minute=1)
    found(keys, KEY).tenant.spend()
    with pytest.raises(RateLimited):
        found(keys, SECOND_KEY).tenant.spend()


def test_a_name_may_have_a_rate_of_its_own() -> None:
    keys = ApiKeys(entries(f"{LINE} requests_per_minute=2", LAB_LINE), requests_per_minute=1)
    for key, permits in ((KEY, 2), (LAB_KEY, 1)):
        for _ in range(permits):
            found(keys, key).tenant.spend()
        with pytest.raises(RateLimited):
            found(keys, key).tenant.spend()


def test_without_keys_everybody_is_one_tenant() -> None:
    authenticator = Authenticator(None, requests_per_minute=None)
    assert authenticator.find(None) is authenticator.find("anything")
    assert authenticator.find(None).tenant.cache_salt is None


def test_a_rotation_revokes_the_old_key_and_changes_nothing_else() -> None:
    keys = ApiKeys(entries(LINE, LAB_LINE), requests_per_minute=2)
    old, lab = found(keys, KEY), found(keys, LAB_KEY)
    old.tenant.spend()
    assert keys.replace(entries(LINE, SECOND_LINE, LAB_LINE)) == 0
    assert keys.replace(entries(SECOND_LINE, LAB_LINE)) == 1
    assert keys.find(KEY) is None
    assert (old.revoked, lab.revoked, found(keys, LAB_KEY)) == (True, False, lab)
    with pytest.raises(Unauthenticated):
        old.require_valid()
    # The tenant goes on where it was: one permit is used.
    new = found(keys, SECOND_KEY)
    assert new.tenant is old.tenant
    new.tenant.spend()
    with pytest.raises(RateLimited):
        new.tenant.spend()


def test_other_limits_and_scopes_of_a_key_do_not_revoke_it() -> None:
    keys = ApiKeys(entries(LINE))
    before = found(keys, KEY)
    assert keys.replace(entries(f"{LINE} requests_per_minute=1 scopes=stats")) == 0
    assert found(keys, KEY) is before
    assert before.scopes == {"stats"}
    before.tenant.spend()
    with pytest.raises(RateLimited):
        before.tenant.spend()


def test_a_key_that_moves_to_another_name_is_another_grant() -> None:
    keys = ApiKeys(entries(LINE))
    before = found(keys, KEY)
    assert keys.replace(entries(f"lab {HASH}")) == 1
    assert before.revoked
    assert found(keys, KEY).tenant.cache_salt != before.tenant.cache_salt
