"""Bitrix24 (REST, telephony)."""
