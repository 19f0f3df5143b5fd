"""The settings of dlt that its user may set. All others keep dlt's own defaults here.

dlt looks for each of its settings in the environment, in ``.dlt/config.toml`` and
``.dlt/secrets.toml`` of the working directory, and in vaults. It looks first with the name of the
setting's section, such as ``LOAD__WORKERS``, and at last without, such as ``WORKERS``. With some of
them, a bucket would no longer be stored exactly once (``dev_mode``, ``restore_from_destination``,
``load.raise_on_failed_jobs``), and a short name may belong to any program. So only the user's
settings in `SETTINGS` are read, and only with the name of their section.

See https://dlthub.com/docs/general-usage/credentials/setup.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.environ import EnvironProvider
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.providers.toml import TomlProviderReadException
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from msgconv_async.errors import ConfigurationError

_LOG = logging.getLogger("msgconv_async")


class Settings(NamedTuple):
    """The settings of one of dlt's sections.

    Attributes:
        users: The settings that are read.
        ours: The settings that are not.
    """

    users: frozenset[str] = frozenset()
    ours: frozenset[str] = frozenset()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SETTINGS: Mapping[str, Settings] = {
    # How the store uses dlt: the state of a pipeline is read from the destination each time, and
    # the command line alone names the destination.
    "pipelines": Settings(
        ours=_names(
            "dataset_name dataset_name_layout destination_name destination_type dev_mode"
            " enable_runtime_trace export_schema_path full_refresh import_schema_path pipeline_name"
            " pipeline_salt pipelines_dir progress refresh restore_from_destination runtime"
            " staging_name staging_type use_single_dataset"
        )
    ),
    # Errors are raised, and nothing that was left behind is used again.
    "load": Settings(
        users=_names("parallelism_strategy workers"),
        ours=_names(
            "auto_abort_on_terminal_error delete_completed_jobs load_volume_path pool_type"
            " raise_on_failed_jobs raise_on_max_retries run_sleep start_method"
            " start_new_jobs_on_signal truncate_staging_dataset"
        ),
    ),
    # Names and types of the tables and columns are documented, and must not change.
    "normalize": Settings(
        ours=_names(
            "add_dlt_id add_dlt_load_id destination_capabilities json_normalizer model_normalizer"
            " normalize_volume_path parquet_normalizer pool_type run_sleep start_method workers"
        )
    ),
    "schema": Settings(
        ours=_names(
            "allow_identifier_change_on_table_with_data export_schema_path external_schema_format"
            " external_schema_format_remove_defaults import_schema_path json_normalizer naming"
            " schema_volume_path use_break_path_on_normalize"
        )
    ),
    # A batch must come out as it went in: in its order, and whole.
    "extract": Settings(
        ours=_names("copy_on_fork futures_poll_interval max_parallel_items next_item_mode workers")
    ),
    # How Parquet files are packed. Settings that change types, or what PostgreSQL reads, are ours.
    "data_writer": Settings(
        users=_names(
            "buffer_max_items compression data_page_size file_max_bytes file_max_items"
            " row_group_size use_content_defined_chunking write_page_index"
        ),
        ours=_names(
            "allow_truncated_timestamps arrow_concat_promote_options coerce_timestamps delimiter"
            " disable_compression encoding encoding_errors flavor include_header lineterminator"
            " on_error_continue quoting supports_dictionary_encoding timestamp_timezone"
            " use_compliant_nested_type version"
        ),
    ),
    # What dlt reports, and where.
    "runtime": Settings(
        users=_names(
            "dlthub_dsn dlthub_telemetry dlthub_telemetry_endpoint"
            " dlthub_telemetry_segment_write_key http_max_error_body_length http_show_error_body"
            " log_format log_level request_backoff_factor request_max_attempts"
            " request_max_retry_delay request_timeout run_id sentry_dsn slack_incoming_hook"
        ),
        ours=_names(
            "config_files_storage_path intercept_signals pipeline_name pluggable_run_context"
        ),
    ),
    # The vaults to read secrets from.
    "providers": Settings(
        users=_names(
            "airflow_secrets aws_secrets enable_airflow_secrets enable_aws_secrets"
            " enable_google_secrets google_secrets list_secrets only_secrets only_toml_fragments"
            " secret_name_prefix"
        )
    ),
    # The place of the data and its credentials. Settings that are not named are the user's as well
    # here: each destination and its credentials have settings of their own.
    "destination": Settings(
        users=_names(
            "always_refresh_views bucket_url client_kwargs config_kwargs create_indexes credentials"
            " current_datetime deltalake_configuration deltalake_storage_options"
            " deltalake_streamed_exec destination_name destination_type extra_placeholders"
            " iceberg_namespace_properties iceberg_table_properties iceberg_use_catalog_purge"
            " kwargs layout local_dir read_only warn_unsafe_layout_separators"
        ),
        ours=_names(
            "as_staging_destination csv_format dataset_name default_schema_name"
            " enable_dataset_name_normalization environment info_tables_query_threshold"
            " legacy_db_path max_state_files pipeline_name pipeline_working_dir replace_strategy"
            " staging_config staging_dataset_name_layout"
            " truncate_tables_on_staging_destination_before_load"
        ),
    ),
}
"""Every setting of dlt's that could have an effect here, by its section."""


def is_users(section: str, key: str) -> bool:
    """Return whether the user may set a setting of a section."""
    settings = SETTINGS.get(section, Settings())
    if section == "destination":
        return key not in settings.ours
    return key in settings.users


class _UserSettings(ConfigProvider):
    """A source of settings of which only the user's are read."""

    def __init__(self, provider: ConfigProvider) -> None:
        self._provider = provider

    def get_value(
        self, key: str, hint: type[Any], pipeline_name: str | None, *sections: str
    ) -> tuple[Any | None, str]:
        named = [section for section in sections if section]
        if named and is_users(named[0], key):
            return self._provider.get_value(key, hint, pipeline_name, *sections)
        if named or not isinstance(self._provider, EnvironProvider):
            # Such a name is meant for dlt. A short name in the environment may belong to any
            # program.
            value, name = self._provider.get_value(key, hint, pipeline_name, *sections)
            if value is not None:
                _warn(name, self._provider.name)
        return None, key

    def get_value_location(self, key: str, pipeline_name: str | None, *sections: str) -> str:
        return self._provider.get_value_location(key, pipeline_name, *sections)

    @property
    def supports_secrets(self) -> bool:
        return self._provider.supports_secrets

    @property
    def supports_sections(self) -> bool:
        return self._provider.supports_sections

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def is_empty(self) -> bool:
        return self._provider.is_empty

    @property
    def locations(self) -> Any:
        return self._provider.locations


_told: set[str] = set()


def _warn(name: str, where: str) -> None:
    if name not in _told:
        _told.add(name)
        _LOG.warning("dlt's setting %s (%s) is ignored: collecting needs its default", name, where)


@contextmanager
def only_user_settings() -> Iterator[None]:
    """Let dlt read only its user's settings, as long as the context lasts.

    Raises:
        ConfigurationError: A file with settings cannot be read.
    """
    try:
        found = Container()[PluggableRunContext].providers
    except TomlProviderReadException as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"dlt's settings cannot be read: {reason}") from None
    providers = found.providers
    if any(isinstance(provider, _UserSettings) for provider in providers):
        yield
        return
    found.providers = [_UserSettings(provider) for provider in providers]
    try:
        yield
    finally:
        found.providers = providers
